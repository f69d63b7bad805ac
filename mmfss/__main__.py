"""``python -m mmfss``, for where the command ``mmfss`` is not on the path."""

from mmfss.commands.cli import main

if __name__ == '__main__':
    main()
