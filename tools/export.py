"""The same as ``hoyer-det export``; ``--help`` lists the arguments."""

from hoyer_det.commands.export import main

if __name__ == '__main__':
    main()
