"""What tests of triggers share."""

from lit_backdoor.triggers import PairedTrigger


def stamp(trigger, way, images, index):
    """Stamp images by a method of the trigger; the mirrored images are partners where it needs them."""
    pairs = (images.flip(3),) if isinstance(trigger, PairedTrigger) else ()
    return getattr(trigger, way)(images, index, *pairs)
