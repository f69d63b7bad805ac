# A dataset made by tools/prepare.py: your own folder, FSS-1000, LVIS-92i, ... DATA_ROOT is its
# folder, which says what the classes and folds are. Trained on as PASCAL VOC is.
# Tests give every class its share; --sampler uniform_class draws as Matcher does.
_base_ = 'pascal_5i.py'
data_root = '{{$DATA_ROOT:data/prepared}}'

train_images, val_images, test_images = (
    dict(_delete_=True, type='PreparedDataset', data_root=data_root, split=split)
    # of several lists the first that the dataset has
    for split in ('train', ['val', 'test', 'all'], ['test', 'val', 'all'])
)
if _base_.selection == 'novel':  # the published rule validates where it tests
    val_images = test_images
train_dataloader = dict(dataset=dict(benchmark=data_root, dataset=train_images))
val_dataloader = dict(
    dataset=dict(benchmark=data_root, sampler='balanced', dataset=val_images),
)
test_dataloader = dict(
    dataset=dict(benchmark=data_root, sampler='balanced', dataset=test_images),
)
