"""The same as ``hoyer-det check-data``; ``--help`` lists the arguments."""

from hoyer_det.commands.check_data import main

if __name__ == '__main__':
    main()
