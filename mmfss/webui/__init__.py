"""The web page: show the model some marked images, label others, take the masks away.

``uploads`` checks and keeps what comes in, ``marking`` turns clicks and brush strokes into prompts
and masks, ``images`` are what a visitor has, ``session`` is what one visitor has done so far,
``views`` how it looks, ``export`` what is taken away, ``worker`` the one model that all share. None
of them knows Gradio; ``layout`` and ``page`` do, and :mod:`mmfss.commands.webui` starts them.
"""
