"""How a student is trained."""

from dinodp.options.base import Options, option


class DistillationOptions(Options):
    """Training of a student, and its size."""

    rounds: int = option(24, "Each draws images, disturbs them, and asks the teacher once.", ge=1)
    images_per_round: int = option(256, "Images that the teacher embeds in a round.", ge=1)
    passes: int = option(4, "How often a round's images are learnt from.", ge=1)
    images_per_step: int = option(8, "Images of a gradient step.", ge=1)
    learning_rate: float = option(0.002, "Highest one; it rises for 200 steps and falls as a cosine.", gt=0)
    disturbed: bool = option(
        True, "Learn from images with blurred, brightened, noisy or exchanged parts as well, not from normal ones only."
    )
    stem: int = option(48, "Channels at two cells per patch side.", ge=1)
    width: int = option(128, "Channels at the patch grid.", ge=1)
    blocks: int = option(6, "Blocks at the patch grid.", ge=1)
    seed: int = option(0, "Of all random choices.", ge=0)

    def size(self) -> dict[str, int]:
        """What the network is built from."""
        return {"stem": self.stem, "width": self.width, "blocks": self.blocks}
