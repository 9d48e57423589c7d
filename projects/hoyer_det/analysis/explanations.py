"""What a report says in words: rows that surprise, and what its estimates leave out."""

from .measure import Measurement


def explanations(measured: Measurement) -> dict[str, str]:
    """Return the reason for each row of a layer that may surprise, by name of the layer.

    Args:
        measured: What was counted on a network.
    """
    found: dict[str, list[str]] = {}
    for number, layer in enumerate(measured.layers):
        reasons = found.setdefault(layer.name, [])
        before = layer.density_before_pooling
        density = layer.active / max(layer.inputs, 1)
        if before is not None and density > before:
            reasons.append(
                f'reads after max pooling, which raises the density from {before:.1%} to '
                f'{density:.1%}: the maximum of a window is 0 only where all its entries are'
            )
        if layer.kind == 'addition':
            continue
        if layer.calls > layer.images:
            reasons.append(
                f'runs {layer.calls / layer.images:g} times an image, as on the levels of a pyramid or on '
                'proposals: operations and maps are the sum, its weights are read once'
            )
        if not measured.spiking:
            continue
        if layer.input_kind == 'count':
            reasons.append('multiplies: it reads sums of spikes, whole numbers above 1')
        elif layer.input_kind == 'real':
            reads = (
                'numbers, not the outputs of neurons' if number else 'the image, which is no spikes'
            )
            reasons.append(f'multiplies: it reads {reads}')
    return {name: '; '.join(reasons) for name, reasons in found.items() if reasons}


def neuron_explanations(measured: Measurement) -> dict[str, str]:
    """Return the reason for each row of neurons that may surprise, by name of the layer.

    Args:
        measured: What was counted on a network.
    """
    found: dict[str, list[str]] = {}
    for name, layer in measured.neurons.items():
        reasons = found.setdefault(name, [])
        if layer.mean_rate > 0.5:
            reasons.append(
                'fires more often than not: most of its potentials lie above the firing level, and '
                'what reads it can skip less than half'
            )
        if layer.channels is None:
            continue
        if 10 * layer.dead > layer.channels:
            reasons.append(
                f'{layer.dead} of {layer.channels} channels never fired on these images: to what reads '
                'them they are 0; look at more images before removing any'
            )
        if 10 * layer.saturated > layer.channels:
            reasons.append(
                f'{layer.saturated} of {layer.channels} channels always fired: to what reads them they are a '
                'constant'
            )
    return {name: '; '.join(reasons) for name, reasons in found.items() if reasons}


NO_RELU_TWIN = (
    'ReLU twin, zeros skipped: not measured; its zeros are those of a trained network, '
    'give one with --compare-twin relu CHECKPOINT'
)

LIMITS = (
    'Norms, pooling, neurons (one comparison each; leak and reset of leaky ones), biases, up-sampling, '
    'decoding of boxes and NMS: none is counted. Norms in evaluation fold into the layer before them. The '
    'additions of two feature maps of a residual network are counted.',
    'Zeros are skipped for free, in spiking and ReLU networks alike: finding the active inputs, routing '
    'them and the irregular order of reading weights cost nothing here. Hardware that does not skip zeros '
    'pays for the rows without it. Skipped zeros save no memory access: the inputs are read all the same.',
    'Memory is counted once: each weight once an image, each input once a call of its layer, each output '
    'once, before pooling where that stands behind the neuron. A real chip reads weights or inputs several '
    'times when they do not fit beside its adders, and reads weights of active inputs only when there are '
    'few; registers, address logic, control, leakage and clock are left out.',
    'Partial sums stay beside the adders. With one time step no membrane potential is kept; that of a '
    'leaky neuron over several is written and read once, as a number, for each step after the first.',
    'The constants are those of single operations on a chip of a given technology, not of a device. '
    'Compare columns, not chips.',
    'int8 costs are those of the same operations on 8-bit weights; that the network keeps its accuracy '
    'with them is not shown here.',
    'Padding counts as dense operations, as FLOP counters have it, and as a zero where zeros are skipped.',
)
