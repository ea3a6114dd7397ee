"""Whether the box can reach AWS and the Hub, as far as the routes of its subnets say."""

from conf.finding import BROKEN, OK, Finding
from remote.doctor.check import Context


def routes(context: Context) -> list[Finding]:
    """A way from the subnet that is named, or from the default ones, out to AWS and the Hub."""
    ec2, why = context.aws.client("ec2"), "the box must reach ssm, ecr, s3 and the Hub; nothing reaches it"
    asked = (
        {"SubnetIds": [subnet_id]}
        if (subnet_id := context.run.box.subnet)
        else {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}
    )
    subnets = ec2.describe_subnets(**asked)["Subnets"]
    if not subnets:
        return [Finding("network", BROKEN, "the account has no default network here", why, "`aws ec2 create-default-vpc`")]
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [subnets[0]["VpcId"]]}])["RouteTables"]
    closed = [subnet["SubnetId"] for subnet in subnets if not has_way_out(subnet, tables)]
    if closed:
        command = "route 0.0.0.0/0 to an internet gateway or a NAT gateway: `aws ec2 create-route --route-table-id ... --gateway-id ...`"
        return [Finding("network", BROKEN, f"no way out of {', '.join(closed)}", why, command)]
    return [Finding("network", OK, f"{len(subnets)} subnets, each with a way out")]


def has_way_out(subnet: dict, tables: list[dict]) -> bool:
    """Whether an instance in this subnet comes out of its network, by the routes."""
    own_tables = [table for table in tables if any(link.get("SubnetId") == subnet["SubnetId"] for link in table["Associations"])]
    main = [table for table in tables if any(link.get("Main") for link in table["Associations"])]
    for route in (own_tables or main or [{"Routes": []}])[0]["Routes"]:
        if route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State") != "blackhole":
            through = route.get("GatewayId") or ""
            return not through.startswith("igw-") or subnet["MapPublicIpOnLaunch"]
    return False
