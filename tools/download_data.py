"""The same as ``hoyer-det download-data``; ``--help`` lists the arguments."""

from hoyer_det.commands.download_data import main

if __name__ == '__main__':
    main()
