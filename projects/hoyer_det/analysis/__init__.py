"""What a model costs: operations and an energy estimate."""

from .operations import ENERGY_45NM, EnergyTable, LayerOperations, count_operations, energy

__all__ = ['ENERGY_45NM', 'EnergyTable', 'LayerOperations', 'count_operations', 'energy']
