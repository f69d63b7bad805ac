"""X-AnyLabeling itself, without a window: opens a folder, takes the remote server, and runs on all
images as its button does. ::

    XANYLABELING_PYTHON xanylabeling_run.py SERVER FOLDER HOME [PICTURE]

Runs in the environment of that program, for tests/test_serve/test_xanylabeling_program.py.
"""

import os
import sys
import time

server, folder, home = sys.argv[1:4]
os.environ.update(HOME=home, QT_QPA_PLATFORM='offscreen')
settings = os.path.join(home, '.xanylabelingrc')
with open(settings, 'w') as file:
    file.write(f'remote_server_settings:\n  server_url: {server}\n  api_key: a-secret\n')

import anylabeling.config  # noqa: E402

anylabeling.config.current_config_file = settings

from anylabeling.resources import resources  # noqa: E402, F401
from anylabeling.views.labeling.utils import batch  # noqa: E402
from anylabeling.views.labeling.utils.theme import init_theme  # noqa: E402
from anylabeling.views.mainwindow import MainWindow  # noqa: E402
from PyQt6 import QtWidgets  # noqa: E402


def until(condition):
    end = time.monotonic() + 120
    while not condition():
        app.processEvents()
        time.sleep(0.02)
        if time.monotonic() > end:
            sys.exit('the program does not get on')


app = QtWidgets.QApplication([])
init_theme('light')
window = MainWindow(app, config=anylabeling.config.get_config(settings), filename=folder)
window.resize(1400, 900)
window.show()
view = window.labeling_widget.view
widget, manager = view.auto_labeling_widget, view.auto_labeling_widget.model_manager
# the one thing that a person is asked: which images
batch.BatchRangeDialog.exec = lambda self: QtWidgets.QDialog.DialogCode.Accepted
until(lambda: view.image_list)
view.toggle_auto_labeling_widget()
manager.load_model(':/remote_server.yaml')
until(lambda: (manager.loaded_model_config or {}).get('type') == 'remote_server')
models = widget.remote_server_select_combobox
until(lambda: models.count())
print('models', [models.itemText(i) for i in range(models.count())])
batch.run_all_images(view)
until(lambda: getattr(view, '_batch_processing_active', False))
until(lambda: not view._batch_processing_active)
if len(sys.argv) > 4:
    view.load_file(view.image_list[0])
    end = time.monotonic() + 2
    until(lambda: time.monotonic() > end)
    window.grab().save(sys.argv[4])
sys.stdout.flush()
os._exit(0)  # its threads go on otherwise
