-- Of two words about the same the later one stands. What there is no place for is left out.
local now, bans_max, per_room_max = unpack(ARGV)
for at = 4, #ARGV, 8 do
  local channel, place, room, identity, banned, before, until_s, version = unpack(ARGV, at, at + 7)
  local line = redis.call('HGET', BANS, place .. identity)
  local _, _, _, stored = read(line)
  if stored < tonumber(version) and (line or make_place(place, now, bans_max, per_room_max)) then
    write(channel, place, room, identity, tonumber(banned), tonumber(before), tonumber(until_s), tonumber(version))
  end
end
return { 'ok' }
