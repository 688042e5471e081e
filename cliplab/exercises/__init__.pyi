from .checking import (
    EXERCISES as EXERCISES,
    check as check,
    grade as grade,
    hint as hint,
    progress as progress,
)
from .course import (
    make_course as make_course,
)
from .masters import (
    Master as Master,
    read_masters as read_masters,
    student_form as student_form,
)
from .quizzes import quiz as quiz
