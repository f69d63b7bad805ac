# Pseudo prompts, refinement and support-calibrated attention: FSSAM itself, under its name in
# the ablation.
_base_ = '../fss_sam2_shapes_1shot.py'
