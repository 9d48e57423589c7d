"""The same as ``hoyer-det convert-labels``; ``--help`` lists the arguments."""

from hoyer_det.commands.convert_labels import main

if __name__ == '__main__':
    main()
