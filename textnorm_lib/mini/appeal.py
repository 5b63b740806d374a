"""What people like about an image whatever was asked for: its appeal.

People who compare two images of a prompt look at more than the prompt: a vivid picture may win over a dull one that
shows more of what was asked for. In the mini world such a liking is a number that can be computed from the pixels
alone, colourfulness, so that one can say how much of it a reward has taken over. The judges never see it.
"""

import numpy as np


def colourfulness(images: np.ndarray) -> np.ndarray:
    """How colourful each image looks to people: uint8 (n, h, w, 3) to float (n,), from 0 (grey) to about 110 (vivid).

    The measure of Hasler and Suesstrunk (2003), M3: spread and mean of the two opponent colours, red against green and
    yellow against blue, with the weight .3 for the mean, which they fitted to ratings of photographs by 20 people.
    """
    red, green, blue = np.moveaxis(images.astype(np.float32), -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, len(images), -1)
    return np.hypot(*opponents.std(axis=2)) + 0.3 * np.hypot(*opponents.mean(axis=2))
