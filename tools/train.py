"""The same as ``hoyer-det train``; ``--help`` lists the arguments."""

from hoyer_det.commands.train import main

if __name__ == '__main__':
    main()
