# The normalisation of the detectors, so that the stem reads the same numbers there.
model = dict(
    type='SpikingClassifier',
    data_preprocessor=dict(
        type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
)
