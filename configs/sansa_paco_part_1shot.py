# SANSA on PACO-Part (FOLD=0 .. FOLD=3), on objects cut out.
# DATA_ROOT is what tools/prepare.py made.
# On squares of 640 px, as published: --cfg-options test_dataloader.dataset.label_size=640
_base_ = 'sansa_prepared_1shot.py'

test_dataloader = dict(dataset=dict(sampler='uniform_class', num_episodes=2500))
