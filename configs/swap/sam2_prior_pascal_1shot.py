# SAM 2's own features in place of a prior encoder.
_base_ = '../fss_sam2_pascal_1shot.py'

model = dict(prior_encoder=dict(_delete_=True, type='SAM2PriorEncoder'))
