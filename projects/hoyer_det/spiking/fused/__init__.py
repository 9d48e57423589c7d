"""The neuron in fewer passes over the memory, and what is kept for the backward pass as bits.

Everything here gives the numbers of the plain tensor operations in ``neuron.py`` and ``function.py``
within rounding. A reader who wants the method alone can leave this folder out.
"""
