"""The same as ``hoyer-det test``; ``--help`` lists the arguments."""

from hoyer_det.commands.test import main

if __name__ == '__main__':
    main()
