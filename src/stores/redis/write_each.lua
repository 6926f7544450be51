-- Makes writes of one table in their order, each with twelve arguments. Returns the result of `write` for each, or {8,
-- why} if the server has refused it.
local answers = {}
for at = 1, #ARGV, 12 do
    local done, answer = pcall(write, KEYS, {unpack(ARGV, at, at + 11)})
    local refusal = not done and answer or type(answer) == 'table' and answer.err
    if refusal then
        answer = {8, type(refusal) == 'table' and refusal.err or refusal}
    end
    answers[#answers + 1] = answer
end
return answers
