from tests.factories import deployment

from servery_controller.api.present import detailed

HOST = "http://localhost:8080/"


def test_a_service_principal_that_created_an_endpoint_is_told_from_a_person():
    answer = detailed(
        deployment(creator="0a1b", creator_kind="service_principal", creator_display_name="Deployer"),
        HOST,
    )
    shown = (answer["creator"], answer["creator_kind"], answer["creator_display_name"])
    assert shown == ("0a1b", "ServicePrincipal", "Deployer")


def test_who_has_no_display_name_is_shown_by_the_user_name():
    answer = detailed(deployment(creator="ann"), HOST)
    assert (answer["creator_kind"], answer["creator_display_name"]) == ("User", "ann")


def test_a_route_optimized_endpoint_says_where_it_is_scored():
    answer = detailed(deployment(route_optimized=True), HOST)
    url = "http://localhost:8080/serving-endpoints/iris/invocations"
    assert answer["endpoint_url"] == url
    assert "data_plane_info" not in answer
    assert "endpoint_url" not in detailed(deployment(), HOST)
