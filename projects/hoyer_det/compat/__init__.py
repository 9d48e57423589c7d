"""What the pinned OpenMMLab packages lack: operators of mmcv-lite, and patches with an end date."""

from . import operators, patches

__all__ = ['apply', 'operators', 'patches']


def apply() -> None:
    """Provide the operators and apply the patches; calling it again changes nothing.

    Call it before anything imports ``mmdet.models``.

    Raises:
        ImportError: If mmcv is not installed.
    """
    operators.provide()
    patches.give_ssd_head_a_loss_cls()
    patches.trust_mmengine_checkpoints()
    patches.read_addresses_as_data()
    patches.take_missing_iscrowd_and_area()
    patches.write_files_of_hooks_safely()
    patches.silence_pkg_resources()
    patches.guard_fuse_conv_bn()
