"""The same as ``hoyer-det detect``; ``--help`` lists the arguments."""

from hoyer_det.commands.detect import main

if __name__ == '__main__':
    main()
