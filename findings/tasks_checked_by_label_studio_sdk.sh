#!/usr/bin/env bash
# label-studio-sdk cannot check a task that has predictions or annotations.
#
# Library    label-studio-sdk 2.1.2, LabelInterface.validate_task.
# One would guess that it tells whether a task with its predictions fits a labelling config, as its
#            arguments validate_regions_only and the check of single predictions suggest: what one
#            wants to know of an import file before it is imported.
# Behaviour  it hands each prediction and annotation to a method of its own without an argument, so that
#            every task that has one ends in a TypeError, right or wrong. A task without any passes, and
#            validate_prediction alone accepts the same prediction.
# Seen       a task with data alone: True; the prediction alone: True; both together, and an annotation
#            in the place of the prediction: "missing 1 required positional argument".
#
# Ends with status 1 when this is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q label-studio-sdk==2.1.2
"$work/venv/bin/python" - <<'PYTHON'
from label_studio_sdk.label_interface import LabelInterface

interface = LabelInterface("""
<View>
  <Image name="photo" value="$photo"/>
  <RectangleLabels name="kind" toName="photo"><Label value="leaf"/></RectangleLabels>
</View>""")
value = dict(x=25, y=30, width=40, height=15, rotation=0, rectanglelabels=['leaf'])
region = dict(
    from_name='kind', to_name='photo', type='rectanglelabels', original_width=64,
    original_height=48, image_rotation=0, value=value,
)
task = dict(data=dict(photo='a.png'))
alone = interface.validate_prediction(dict(model_version='1', score=0.5, result=[region]))
print(f'a task with data alone: {interface.validate_task(task)}; the prediction alone: {alone}')
said = []
for name in ('predictions', 'annotations'):
    try:
        print(f'a task with {name}: {interface.validate_task({**task, name: [dict(result=[region])]})}')
    except TypeError as error:
        said.append(str(error))
        print(f'a task with {name}: {error}')
same = interface.validate_task(task) and alone and len(said) == 2
same = same and all('missing 1 required positional argument' in text for text in said)
raise SystemExit(0 if same else 'this is no longer so')
PYTHON
