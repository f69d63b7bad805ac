# SANSA on LVIS-92i (10 folds: FOLD=0 .. FOLD=9).
# DATA_ROOT is what tools/prepare.py made.
# On squares of 640 px, as published: --cfg-options test_dataloader.dataset.label_size=640
_base_ = 'sansa_prepared_1shot.py'

test_dataloader = dict(dataset=dict(sampler='balanced', num_episodes=2300))
