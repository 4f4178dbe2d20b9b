#include "tensor_checks.h"

#include <cmath>
#include <cstring>

namespace qe {

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(kFormat, message);
}

Matrix matrix(const qe_tensor& t, int rows, int cols, const char* name) {
  const QeLayout& l = t.layout;
  require(t.data != nullptr && l.rows == rows && l.cols == cols,
          std::string("tensor ") + name + " does not have the shape that the model's config gives");
  require(l.type >= 0 && l.type <= static_cast<int32_t>(Type::kQ4),
          std::string("tensor ") + name + " has an unknown type");
  Matrix m;
  m.data = static_cast<const uint8_t*>(t.data);
  m.type = static_cast<Type>(l.type);
  m.rows = rows;
  m.cols = cols;
  const bool packed = m.type == Type::kQ4 || m.type == Type::kQ8;
  uint64_t needed = static_cast<uint64_t>(rows) * cols * (m.type == Type::kF32 ? 4 : 2);
  if (packed) {
    require(l.group == 32 || l.group == 64 || l.group == 128,
            std::string("tensor ") + name + " has an unsupported group size");
    m.group = l.group;
    require(l.has_zero == 0 || l.has_min != 0,
            std::string("tensor ") + name + " has zero points without a place for them");
    m.has_min = l.has_min != 0;
    m.has_zero = l.has_zero != 0;
    std::memcpy(m.codebook, l.codebook, sizeof(m.codebook));
    require(l.unit == 0 || (m.type == Type::kQ4 && !m.has_min && std::isfinite(l.unit)),
            std::string("tensor ") + name + " has levels that do not go with its type");
    std::memcpy(m.levels, l.levels, sizeof(m.levels));
    m.unit = l.unit;
    needed = m.tile_bytes() * static_cast<uint64_t>(m.tiles());
  }
  require(t.bytes >= needed, std::string("tensor ") + name + " is too short");
  return m;
}

}  // namespace qe
