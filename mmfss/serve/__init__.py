"""``mmfss serve``: one HTTP service behind the programs that people label with.

It needs ``pip install -r requirements/serve.txt``.
"""
