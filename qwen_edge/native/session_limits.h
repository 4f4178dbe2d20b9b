// Sizes that session.cpp and transformer.cpp agree on.
#pragma once

namespace qe {

// Rows of one sequence attended together: enough to reuse a block of keys, few enough for the
// cache. engine/memory_estimate.py has the same number.
constexpr int kBlockRows = 32;
// A long context of a single row is cut into parts of this many positions (whole KV chunks), so
// that all threads share it, unless there are at least kTasksPerThread pieces for each thread
// anyway.
constexpr int kSplitPositions = 1024;
constexpr int kTasksPerThread = 16;
// Gate and up are computed 32 columns at a time: one activation group of the next projection.
constexpr int kFeedForwardColumns = 32;
// Tiles are shared out in twos, because kernels multiply two at a time.
constexpr int kTileStep = 2;
// A call of so many rows has phases of a millisecond and more.
constexpr int kLongPhaseRows = 16;
// Shared counters used by a layer, and by the embedding and the head.
constexpr int kPhasesPerLayer = 11;
// An adapter's part of a layer may have a phase for each of its inputs.
constexpr int kAdapterPhases = 4;
constexpr int kPhasesPerCall = 3;

}  // namespace qe
