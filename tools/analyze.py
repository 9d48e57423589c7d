"""The same as ``hoyer-det analyze``; ``--help`` lists the arguments."""

from hoyer_det.commands.analyze import main

if __name__ == '__main__':
    main()
