"""The web page: show the model some marked images, label others, take the masks away.

``uploads`` checks what comes in, ``marking`` turns clicks and brush strokes into prompts and masks,
``session`` is what one visitor has done so far, ``export`` is what is taken away, ``worker`` is the
one model that all share. None of them knows Gradio; ``page`` does, and ``cli`` starts it.
"""
