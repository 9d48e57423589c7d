"""How ``hoyer-det train`` and ``hoyer-det test`` run a config.

``settings`` refuses what could not work, ``runner`` is MMEngine's runner for a command, ``resuming`` goes
on from a checkpoint, and ``stages``, ``from_twin`` and ``from_objects`` are trainings of several stages.
"""
