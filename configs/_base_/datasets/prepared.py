# A dataset made by tools/prepare.py: your own folder, FSS-1000, LVIS-92i, ... DATA_ROOT is its
# folder, which says what the classes and folds are. Pictures are trained on as those of PASCAL VOC.
_base_ = 'pascal_5i.py'
data_root = '{{$DATA_ROOT:data/prepared}}'

# no split named: 'test', else 'val', else 'all'
test_images = dict(_delete_=True, type='PreparedDataset', data_root=data_root)
train_dataloader = dict(
    dataset=dict(
        benchmark=data_root,
        dataset=dict(_delete_=True, type='PreparedDataset', data_root=data_root, split='train'),
    ),
)
val_dataloader = dict(dataset=dict(benchmark=data_root, dataset=test_images))
test_dataloader = dict(dataset=dict(benchmark=data_root, dataset=test_images))
