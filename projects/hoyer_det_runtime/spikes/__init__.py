"""An engine for the CPU whose time falls with the spike rate."""

from .engine import SpikeEngine

__all__ = ['SpikeEngine']
