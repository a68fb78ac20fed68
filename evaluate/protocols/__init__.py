"""The named protocols: how a network is judged, to the number.

    linear_probe                                          one linear layer on cached features, by the recipe's settings
    knn, geometry                                         nearest neighbours; the geometric shortcut
    segmentation                                          a classifier, a decoder or all of it, trained on labels
    scannet-linear, scannet-decoder, scannet-finetune     presets: as published with Sonata, for a GPU and hours
    scannet-linear-tiny, ...                              the same question in a minute on a CPU; other numbers

and presets likewise for scannet200, s3dis, nuscenes, waymo and semantickitti. A suffix asks for a data-efficient split:
"scannet-linear@5%" trains on a share of the scenes, "scannet-linear@20pts" on so many labelled points in each.

    chosen = choose("scannet-linear@5%", ProbeConfig())     # `protocols.registry`: name -> protocol and settings
    measured = chosen.protocol.run(subject, chosen.config)  # what `evaluate.results` does for every baseline

To add one: an object of a class that extends `protocols.protocol.Protocol`, and an entry point, here or in a package of
your own:

    [project.entry-points."brickyard.protocols"]
    my_protocol = "my_package:PROTOCOL"
"""
