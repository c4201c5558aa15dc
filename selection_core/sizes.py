"""Which image sizes the generator can draw. No torch."""

from imaging_core.fields import ConfigError


def halvings(size: tuple[int, int]) -> int:
    """How often an image of `size` (H, W) is halved, until its short side is 3 to 5 pixels.

    Raises:
        ConfigError: a side becomes odd before that.
    """
    height, width, count = *size, 0
    while min(height, width) > 5:
        if height % 2 or width % 2:
            raise ConfigError(
                f"the generator needs sides that halve evenly down to 3..5 pixels, got "
                f"{size[0]} × {size[1]}; resize the images to 32, 64, 96, 128 or 256 × 128, say "
                "(--data NAME:PATH?size=64), or bring a pool of your own (--set pool=FOLDER)"
            )
        height, width, count = height // 2, width // 2, count + 1
    return count
