"""The page of the report: one HTML file, its style and pictures inside, no script."""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}: what it costs</title>
<style>
  body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1d252c;
         background: #f4f6f8; margin: 0; }
  main { max-width: 1200px; margin: 0 auto; padding: 12px 20px 60px; }
  h1 { font-size: 25px; margin: 14px 0 2px; }
  h2 { font-size: 19px; margin: 0 0 8px; }
  section { background: #fff; border: 1px solid #dde3e8; border-radius: 8px; padding: 14px 18px;
            margin: 16px 0; }
  .facts, .note { color: #55616c; font-size: 13.5px; }
  .note { max-width: 125ch; margin: 6px 0; }
  nav a { margin-right: 14px; font-size: 14px; }
  a { color: #1b6ca8; }
  .cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin: 14px 0; }
  .card { background: #fff; border: 1px solid #dde3e8; border-radius: 8px; padding: 10px 14px; }
  .card b { display: block; font-size: 21px; }
  .card span { color: #55616c; font-size: 13px; }
  table { border-collapse: collapse; font-size: 13px; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid #e8edf1; white-space: nowrap; }
  th { color: #55616c; font-weight: 600; vertical-align: bottom; }
  th:first-child, td:first-child { text-align: left; }
  tr.total td { font-weight: 600; border-top: 2px solid #c9d3db; }
  tr.main td { background: #eaf3fa; font-weight: 600; }
  .wide { overflow-x: auto; }
  .tight table { font-size: 12px; }
  .tight th, .tight td { padding: 2px 6px; }
  img { max-width: 100%; height: auto; display: block; margin: 4px auto; }
  code { font-size: 13px; background: #eef2f5; padding: 1px 4px; border-radius: 3px;
         overflow-wrap: anywhere; }
  summary { cursor: pointer; color: #1b6ca8; }
  li { margin: 3px 0; max-width: 125ch; }
  @media (max-width: 800px) { .cards { grid-template-columns: repeat(2, 1fr); } }
</style>
</head>
<body>
<main>
<h1>{{ title }}: what it costs</h1>
<p class="facts">{{ facts }}<br>Made by <code>{{ command }}</code></p>
<nav>
  <a href="#energy">Energy</a><a href="#layers">Layers</a><a href="#spikes">Spikes</a>
  {% if maps %}<a href="#maps">Spike maps</a>{% endif %}
  <a href="#potentials">Potentials</a>
  {% if noise %}<a href="#noise">Noise</a>{% endif %}
  <a href="#rest">Not counted</a><a href="#limits">What is left out</a>
</nav>

<div class="cards">
{% for value, text in cards %}<div class="card"><b>{{ value }}</b><span>{{ text }}</span></div>
{% endfor %}</div>

{{ comparison }}

<section id="energy">
<h2>Energy of one image</h2>
<p class="note">Table <b>{{ table.name }}</b>: a multiply-accumulate costs
{{ table.operations.fp32[0] | round(3) }} pJ and an accumulate {{ table.operations.fp32[1] | round(3) }} pJ
in fp32, {{ table.operations.int8[0] | round(3) }} and {{ table.operations.int8[1] | round(3) }} pJ in int8
(8-bit products, 32-bit sums); a byte of weights {{ table.weight_access | round(3) }} pJ, a byte of
activations {{ table.activation_access | round(3) }} pJ ({{ table.memory }}). Source: {{ table.source }}.
A layer adds only where its input was verified to be 0 or 1; every other layer multiplies, zeros included.
The twins have the same shape; their energy is worked out from it, none of them was run. The ReLU twins
skip no zeros. The 1-bit twin has this network's densities, so with zeros skipped its energy is the same by
construction; measure a trained one with <code>--compare</code>.</p>
<img alt="Energy of one image by network, computation and memory access" src="{{ pictures.totals }}">
<div class="wide">{{ energy }}</div>
<p class="note">Microjoules an image. Computation | with memory access. All tables: {{ tables }}.</p>
<img alt="Energy by layer against the ReLU twins" src="{{ pictures.by_layer }}">
</section>

<section id="layers" class="tight">
<h2>Layers</h2>
<p class="note">Per image. <b>Input</b>: what every input of the layer was, over all images (0/1, count:
whole numbers up to 16, real). <b>Density</b>: share of inputs that are not 0, mean &plusmn; standard
deviation over images. <b>Dense</b>: multiply-accumulates of the dense layer, padding included.
<b>Additions</b>: operations with an active input where the input is 0/1. <b>Multiply</b>:
multiply-accumulates that remain. Bytes: fp32 weights; inputs read and outputs written, spikes at 1 bit.
Energy: fp32, table {{ table.name }}.</p>
<div class="wide">{{ layers }}</div>
</section>

<section id="spikes">
<h2>Spikes</h2>
<p class="note">Share of a layer's neurons that fire; the whisker is the standard deviation over images.</p>
<img alt="Spike rate by layer" src="{{ pictures.rates }}">
<div class="wide tight">{{ neurons }}</div>
<p class="note"><b>Dead</b>: the channel fired nowhere on any of the images; <b>saturated</b>: everywhere
on all of them. Both shrink as images are added. <b>Level</b>: firing level, extremum times extremum scale,
in units of the threshold (mean and range over channels). <b>Near</b>: share of potentials closer to their
level than 0.1 |v|.</p>
</section>

{% if maps %}<section id="maps">
<h2>Spike maps</h2>
<p class="note">Share of the channels that fire at each place: dark none, bright many; each map has its own
scale.</p>
<img alt="Spike maps over the image" src="{{ pictures.maps }}">
</section>{% endif %}

<section id="potentials">
<h2>Membrane potentials</h2>
<p class="note">Histogram of z = u / |v| over all images. The regularizer is meant to push potentials away
from the firing level (orange) on both sides; the share of potentials closer to it than 0.1 stands in each
title, for each network in order. Levels and thresholds are those of the first network. The axis leaves
out about a thousandth on each side.</p>
<img alt="Histograms of normalised membrane potentials" src="{{ pictures.potentials }}">
</section>

{% if noise %}<section id="noise">
<h2>Noise on the membrane potentials</h2>
<p class="note">{{ noise_note }}</p>
<img alt="Detection under noise" src="{{ pictures.noise }}">
<div class="wide">{{ noise }}</div>
</section>{% endif %}

<section id="rest">
<h2>Not counted, not run</h2>
{% if not_counted %}<p class="note">These ran, and their operations are in none of the numbers above:</p>
<ul>{% for name, why in not_counted.items() %}<li><code>{{ name }}</code>: {{ why }}</li>{% endfor %}</ul>
{% else %}<p class="note">Every layer with weights that ran is counted, and so is every convolution and
matrix product outside a layer.</p>{% endif %}
{% if not_run %}<p class="note">These have weights and no image needed them:
{% for name in not_run %}<code>{{ name }}</code> {% endfor %}</p>{% endif %}
{% if cross_check %}<p class="note">Counted a second time: {{ cross_check }}</p>{% endif %}
</section>

<section id="limits">
<h2>What these estimates leave out</h2>
<ul>
{% for limit in limits %}<li>{{ limit }}</li>
{% endfor %}</ul>
</section>
</main>
</body>
</html>
"""

LIMITS = (
    'Norms, pooling, neurons (one comparison each), biases, up-sampling, decoding of boxes and NMS: none '
    'is counted. Norms in evaluation fold into the layer before them. The additions of two feature maps '
    'of a residual network are counted.',
    'Zeros are skipped for free: finding the active inputs, routing events and the irregular order of '
    'reading weights cost nothing here. Hardware that does not skip zeros pays for the row "zeros not '
    'skipped".',
    'Memory is counted once: each weight once an image, each input once a call of its layer, each output '
    'once. A real chip reads weights or inputs several times when they do not fit beside its adders, and '
    'reads weights of active inputs only when there are few; registers, address logic, control, leakage '
    'and clock are left out.',
    'Partial sums (membrane potentials) stay beside the adders: with one time step nothing is kept from '
    'one step to the next.',
    'The constants are those of single operations on a chip of a given technology, not of a device. '
    'Compare columns, not chips.',
    'int8 costs are those of the same operations on 8-bit weights; that the network keeps its accuracy '
    'with them is not shown here.',
    'Padding counts as dense operations, as FLOP counters have it, and never as an addition.',
)
