"""Hooks that a training or evaluation run of a spiking detector uses."""

from .regularizer_hook import HoyerRegularizerHook

__all__ = ['HoyerRegularizerHook']
