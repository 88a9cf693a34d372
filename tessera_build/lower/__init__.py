"""The bridges between adjacent IR levels: graph_to_schedule, schedule_to_tile, tile_to_target, and vector math."""
