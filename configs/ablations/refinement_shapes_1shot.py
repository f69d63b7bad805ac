# Pseudo prompts and iterative memory refinement; SAM 2's own attention.
_base_ = '../fss_sam2_shapes_1shot.py'

model = dict(memory_attention=None)
