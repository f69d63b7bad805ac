# Stands in for the pretrained weights that SAM 2 has in earnest: the small SAM 2 learns to match
# an object with itself, on the base classes of the fold alone. The true mask of the query is its
# prompt, as in SAM 2's own training; configs/fss_sam2_shapes_1shot.py starts from the result.
_base_ = 'fss_sam2_shapes_1shot.py'

model = dict(
    prompt_generator=dict(type='OraclePromptGenerator'),
    memory_refinement=None,
    memory_attention=None,
)  # SAM 2's own
load_from = None
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, begin=0, end=20, by_epoch=False),
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0.0,
        begin=0,
        end=12,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=12)
custom_hooks = []
