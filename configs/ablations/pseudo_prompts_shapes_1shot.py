# Support memory and a memory of the query under its pseudo mask, as encoded; SAM 2's own
# attention.
_base_ = '../fss_sam2_shapes_1shot.py'

model = dict(memory_refinement=None, memory_attention=None)
