"""What the console script ``hoyer-det`` and the files of ``tools/`` run, a module for each command.

Each module has ``main()``, which reads ``sys.argv``. Nothing is imported here: every command pays for its
own imports alone. The table of the commands stands in ``hoyer_det_cli.py``, beside the package.
"""
