"""`inv destroy` leaves nothing that goes on costing, and forgets nothing that `inv init` was told."""

BOX, OWNER = "fine-tune-slm:box", "fine-tune-slm:owner"


def test_a_spot_box_leaves_no_request_that_would_launch_another_in_its_place(laptop):
    laptop.inv("up", overrides=("box.spot=true",))
    laptop.inv("down")
    laptop.inv("destroy", "--yes")
    requests = laptop.client("ec2").describe_spot_instance_requests()["SpotInstanceRequests"]
    assert [one["State"] for one in requests] == ["cancelled"]
