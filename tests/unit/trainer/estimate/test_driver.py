"""The driver that the doctor asks for is the one that the image's torch needs."""

from pathlib import Path

from trainer.estimate import driver

PINNED = (Path(driver.__file__).parents[1] / "requirements.txt").read_text()


def test_another_torch_means_to_look_up_its_cuda_again():
    assert f"\ntorch=={driver.TORCH}." in PINNED


def test_the_driver_is_of_the_branch_that_nvidia_names_for_that_cuda():
    assert driver.minimum_driver() == 580
