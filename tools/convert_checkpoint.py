"""The same as ``hoyer-det convert``; ``--help`` lists the arguments."""

from hoyer_det.commands.convert import main

if __name__ == '__main__':
    main()
