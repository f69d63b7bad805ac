# SANSA on FSS-1000: every test image once as query.
# DATA_ROOT is what tools/prepare.py made.
# On squares of 518 px, as published: --cfg-options test_dataloader.dataset.label_size=518
_base_ = 'sansa_prepared_1shot.py'

model = dict(image_size=518)
resize = dict(type='Resize', scale=(518, 518), backend='pillow')
label = [dict(type='LoadLabel'), dict(type='BinarizeLabel')]
train_pipeline = [dict(type='LoadImage'), *label, resize]
query_pipeline = [dict(type='LoadImage'), resize, *label]
episodes = dict(query_pipeline=query_pipeline, support_pipeline=train_pipeline)
train_dataloader = dict(dataset=dict(episodes, query_pipeline=train_pipeline))
val_dataloader = dict(dataset=episodes)
test_dataloader = dict(dataset=dict(episodes, sampler='image_list', num_episodes=2400))
del resize, label, episodes
