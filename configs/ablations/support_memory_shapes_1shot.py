# Support memory only: the "simple idea" that FSSAM starts from. SAM 2 attends from the query to
# the supports as if they were frames of a video. The prior encoder stays, unused, so that the
# pretrained checkpoint fits.
_base_ = '../fss_sam2_shapes_1shot.py'

model = dict(prompt_generator=None, memory_refinement=None, memory_attention=None)  # SAM 2's own
