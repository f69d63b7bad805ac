# Baseline: every pixel is foreground. What any method has to be better than.
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='AllForeground',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=512,
)
