# SANSA on PASCAL-Part (FOLD=0 .. FOLD=3: animals, indoor, person, vehicles), on objects cut out.
# DATA_ROOT is what tools/prepare.py made. Images are of 518 px, as those of FSS-1000.
# On squares of 518 px, as published: --cfg-options test_dataloader.dataset.label_size=518
_base_ = 'sansa_fss1000_1shot.py'

test_dataloader = dict(dataset=dict(sampler='balanced', num_episodes=2500))
