/* Inference on spikes; called by native.py.
 *
 * Spikes are bits, channels last: a place of an image has `words` words of 32 channels, channel c being
 * bit c % 32 of word c / 32; bits behind the last channel are 0.
 */
#include <stdint.h>
#include <string.h>

#include "vectors.h"

#include "convolution.h"

#include "bits.h"
#include "numbers.h"
#include "stem.h"
