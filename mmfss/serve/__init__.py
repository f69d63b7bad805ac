"""``mmfss serve``: one HTTP service behind the programs that people label with. Gradio is not needed;
``pip install -r requirements/serve.txt`` is.
"""
